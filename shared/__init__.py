"""What Evertune's flows, deployments and command line have in common. Imports nothing heavy."""

METAFLOW_PACKAGE_POLICY = "include"
