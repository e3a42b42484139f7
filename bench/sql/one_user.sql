SELECT exa_billing.record_exa_usage('user-1', '/search', 5000);
