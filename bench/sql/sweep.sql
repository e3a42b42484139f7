-- Everybody's spend evaluated at once.
SELECT exa_billing.run_spend_alert_sweep();
