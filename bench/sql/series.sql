-- 90 days of an owner's spend, as a chart shows them.
SELECT count(*) FROM exa_billing.spend_series('user', 'heavy-1', '90d');
