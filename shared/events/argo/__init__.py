"""The chain on Argo Workflows: what is verified, what differs from what is deployed, and the deploying itself."""
