"""Pictures of the boards for the documentation, drawn from a running Prometheus: no Grafana needed.

    asking   the board's JSON and a Prometheus → what each panel got
    units    numbers as Grafana writes them
    drawing  panels → a PNG

`python -m deploy.mixin.pictures --prometheus http://localhost:9090` draws all boards. They look much like Grafana in
its dark theme, but are not made by it: only the kinds of panels and options that the boards use are drawn.
"""
