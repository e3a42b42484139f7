-- The owner's account out of the journals, put right where it differs: after the first time, nowhere.
SELECT exa_billing.recompute_user_balances('heavy-1');
