-- The exact balance of the organization that is charged most.
SELECT exa_billing.account_balance('organization', 'org-1');
