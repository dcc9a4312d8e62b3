"""How gunicorn serves the portal. Put a buffering proxy in front: see docs/deploy/."""

import logging

from portal.config import load_settings
from portal.gateways.logs import logging_config

_settings = load_settings()
logging.captureWarnings(True)
logconfig_dict = logging_config(_settings.log_level, plain=_settings.development)

worker_class = "gthread"
workers = 2
threads = 8
timeout = 30
graceful_timeout = 25
keepalive = 5
max_requests = 20_000
max_requests_jitter = 2_000
limit_request_line = 8190
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = ""
control_socket_disable = True
accesslog = None
