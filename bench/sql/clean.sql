-- t when the books add up: everything charged is in an account or waits to be, and the books of some owners
-- hold. The peers' too: what their log says is what their balances say.
SELECT (SELECT coalesce(sum(charged_microdollars), 0) FROM exa_billing.exa_usage_log)
           = (SELECT sum(microdollars_used) FROM exa_billing.account_balances)
   AND NOT EXISTS (SELECT FROM exa_billing.unposted_spend WHERE blocked_reason IS NOT NULL)
   AND NOT EXISTS (SELECT FROM exa_billing.verify_books('user', 'user-1'))
   AND NOT EXISTS (SELECT FROM exa_billing.verify_books('user', 'user-17'))
   AND NOT EXISTS (SELECT FROM exa_billing.verify_books('organization', 'org-1'))
   AND NOT EXISTS (SELECT FROM exa_billing.exa_usage_log WHERE user_id = 'free-1' AND charged_to_balance)
   AND (SELECT coalesce(sum(charged_microdollars), 0) FROM bench.round_trip_log)
           = (SELECT sum(microdollars_used) FROM bench.users)
             + (SELECT sum(microdollars_used) FROM bench.organizations)
   AND (SELECT coalesce(sum(charged_microdollars), 0) FROM bench.round_trip_log)
           = (SELECT coalesce(sum(total_microdollars), 0) FROM bench.hour_totals);
