"""Spark jobs for work beyond one process: for ``spark-submit`` on EMR Serverless, Glue or any Spark cluster.

    backfill    load the raw archive, or exported NDJSON, into the tables
    compact     merge and sort small files, drop remaining duplicates, remove old snapshots and files
    erase       erase a person from tables, raw archive and failure objects

Spark distributes the work, and repeats it if a worker is lost; events and files are processed by the processor's own
code, and the driver commits as the processor does: a job needs neither Iceberg's jars nor a certain Spark version.
"""
