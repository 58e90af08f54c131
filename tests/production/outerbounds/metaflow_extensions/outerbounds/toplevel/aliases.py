"""Makes `metaflow.plugins.optuna` of the plugin beside this."""

__mf_extensions__ = "outerbounds"
__version__ = "test"
__mf_promote_submodules__ = ["plugins.optuna"]
