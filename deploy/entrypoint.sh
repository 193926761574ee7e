#!/bin/bash
# What a container runs: a command of ours under an init that passes signals on and reaps what is
# left behind; or, in pods that Spark has made, `driver` or `executor`.
set -eu

spark_home() {
    python -c 'import importlib.util as u; print(u.find_spec("pyspark").submodule_search_locations[0])'
}

case "${1:-}" in
    driver)
        shift
        exec tini -s -- "$(spark_home)/bin/spark-submit" \
            --conf "spark.driver.bindAddress=${SPARK_DRIVER_BIND_ADDRESS}" \
            --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=${SPARK_DRIVER_BIND_ADDRESS}" \
            --deploy-mode client "$@"
        ;;
    executor)
        readarray -t options < <(env | grep '^SPARK_JAVA_OPT_' | sort -t_ -k4 -n | sed 's/[^=]*=//')
        exec tini -s -- java "${options[@]}" \
            "-Xms${SPARK_EXECUTOR_MEMORY}" "-Xmx${SPARK_EXECUTOR_MEMORY}" \
            -cp "$(spark_home)/jars/*:${SPARK_CLASSPATH:-}" \
            org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
            --driver-url "${SPARK_DRIVER_URL}" \
            --executor-id "${SPARK_EXECUTOR_ID}" \
            --cores "${SPARK_EXECUTOR_CORES}" \
            --app-id "${SPARK_APPLICATION_ID}" \
            --hostname "${SPARK_EXECUTOR_POD_IP}" \
            --resourceProfileId "${SPARK_RESOURCE_PROFILE_ID:-0}" \
            --podName "${SPARK_EXECUTOR_POD_NAME}"
        ;;
    *)
        exec tini -s -- "$@"
        ;;
esac
