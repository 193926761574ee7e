"""Work on whole catalogues and seasons of images with Spark."""
