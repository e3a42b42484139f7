-- 30 days of an owner's spend.
SELECT total_microdollars FROM exa_billing.rolling_spend('user', 'heavy-1', interval '30 days');
