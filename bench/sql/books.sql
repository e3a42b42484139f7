-- Empty books in which every request is paid, as far back as months are kept.
CREATE EXTENSION exa_billing;
SELECT exa_billing.setup();
SELECT exa_billing.set_free_allowance(0, date_trunc('month', now() AT TIME ZONE 'UTC' - interval '5 months')::date);
CREATE SCHEMA bench;
