"""The system of record: settings, tables, object store, files, jobs, adapters, tenants, outbox."""
