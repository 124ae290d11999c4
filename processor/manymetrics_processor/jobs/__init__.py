"""Jobs for what outgrows one process: ``spark-submit`` runs them on EMR Serverless, Glue or any Spark cluster.

    backfill    the raw archive, or exported NDJSON, into the tables
    compact     small files merged and sorted, duplicates that were left dropped, old snapshots and files removed
    erase       a person out of tables, raw archive and failure objects

Spark spreads the work and does it again where a worker is lost; what is done to events and files is the processor's
own code, and the driver commits as the processor does: a job needs neither Iceberg's jars nor a certain Spark.
"""
