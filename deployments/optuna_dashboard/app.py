"""Optuna's dashboard on the studies in Evertune's database, as a WSGI application."""

from optuna_dashboard import wsgi

from deployments.outerbounds import own_database
from shared.settings import use_platform_database
from shared.storage import PostgresStorage

if url := own_database():
    use_platform_database(lambda: url)
app = wsgi(PostgresStorage())
