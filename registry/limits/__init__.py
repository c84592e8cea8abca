"""What a tenant may take: rates, places, quotas and budgets, from the settings and from overrides in the database.

`values` says which limits there are, `overrides` whose they are. Rates and places are counted by `counters`, in Redis
or in memory; `quotas` are kept in the database, in the transaction of whatever they are about.
"""
