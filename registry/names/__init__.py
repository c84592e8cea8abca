"""Names beside those that models are born with: aliases, and permissions to call another tenant's."""
