"""How gunicorn serves the dashboard: `gunicorn --config deployments/optuna_dashboard/gunicorn.conf.py`.

Where the database is, the process asks the environment for, so that its address is in no command line and in no log.
"""

wsgi_app = "deployments.optuna_dashboard.app:app"
bind = "127.0.0.1:8080"  # behind a proxy: --bind 0.0.0.0:8080

# One process keeps the trials that it has read; threads share its connection.
workers = 1
threads = 8

# The proxy in front says whether the browser came by https.
forwarded_allow_ips = "*"

# The image's root can't be written, and nobody needs to command it.
control_socket_disable = True
