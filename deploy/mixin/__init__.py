"""Recording rules, alerts and dashboards for the exporter's metrics, generated from one set of thresholds.

    settings.Settings → recording.groups, alerts.groups → write.rules → deploy/prometheus/rules-*.yml
                      → docs.files → docs/alerting.md, docs/runbooks/README.md
                      → dashboards.files

`python -m deploy.mixin` writes what is shipped; `--settings my.yml --out DIR` writes it with thresholds of your own.
"""
