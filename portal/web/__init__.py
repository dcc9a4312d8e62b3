"""Blueprints, forms, access rules, headers and templating."""
