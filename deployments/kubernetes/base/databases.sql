-- Run once, on an empty volume: a role and a database each for Evertune and MLflow, whose tables would collide in one.
\getenv evertune_password EVERTUNE_PASSWORD
\getenv mlflow_password MLFLOW_PASSWORD
CREATE ROLE evertune LOGIN PASSWORD :'evertune_password';
CREATE DATABASE evertune OWNER evertune;
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE CONNECT ON DATABASE evertune, mlflow FROM PUBLIC;
