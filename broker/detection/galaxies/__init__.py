"""What is not a point: apertures, shapes, galaxy models, close pairs taken apart."""
