"""Where the platform's API is, as `obproject` asks for it; the address itself is in OBP_INTEGRATIONS_URL."""


def init_config() -> dict[str, str]:
    return {"OBP_PERIMETER": "default"}
