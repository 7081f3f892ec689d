"""A hyperparameter search around its Optuna study, without Ray."""
