# pint --config deploy/pint.hcl --offline lint deploy/prometheus/rules-*.yml
# Every exception has its reason.

# Alerts are one group for each subject, recorded series one for each range of windows, at different intervals. A series
# that is an interval old is what every alert here allows for: by `for`, or by a window many times as long.
checks {
  disabled = ["rule/dependency"]
}

# Metrics are compared that one scrape brings together: no restart of Prometheus sees the one without the other.
# These fire on a fact that does not pass by itself: a `for` would only delay them.
rule {
  match {
    name = "AgentOSBudget80|AgentOSBudgetExhausted|AgentOSCostCaptureLow|AgentOSHiddenSpans|AgentOSRunawayRun|AgentOSTenantOverBudget"
  }
  disable = ["promql/fragile"]
}
