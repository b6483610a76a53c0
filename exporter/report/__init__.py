"""What a period cost, for people without Grafana: daily sums of the ledger become tables, CSV, JSON and a page.

    Days → columns, tables: figures by group → document: the whole report, with notes on what is not known
        → terminal | csv_rows | json_document | page

All of it is pure: no clock, no file, no network.
"""
