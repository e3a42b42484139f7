-- Rows that belong to the books from the start. Put back by setup() also after a restore that left
-- the rows out.

-- What the charging path names by itself, so that it never has to look a dimension up.
INSERT INTO exa_billing.spend_dimensions
    (dimension_id, spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
VALUES
    ('00000000-0000-8000-8000-657861000001', 'variable', 'other', 'exa', 'search', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000002', 'variable', 'other', 'exa', 'contents', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000003', 'variable', 'other', 'exa', 'findSimilar', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000004', 'variable', 'other', 'exa', 'answer', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000005', 'variable', 'other', 'exa', 'context', 'other', 'exa'),
    ('00000000-0000-8000-8000-657861000006', 'variable', 'other', 'exa', 'other', 'other', 'exa')
ON CONFLICT DO NOTHING;

-- The product's own journals, captured from the hour the books are made.
INSERT INTO exa_billing.spend_sources
    (source_name, is_own, relation_schema, relation_name, covered_from, attached_at)
SELECT source_name, true, 'exa_billing', relation_name, date_trunc('hour', now(), 'UTC'), now()
FROM (VALUES ('exa', 'exa_usage_log'), ('spend', 'spend_log')) AS own(source_name, relation_name)
ON CONFLICT DO NOTHING;

-- Suggestions that are made unless somebody changes the rules; a rule that is there is left alone.
INSERT INTO exa_billing.suggestion_rules
    (rule_key, suggestion_kind, priority, is_enabled, owner_kind, provider_key, model_or_plan_key,
     minimum_observed_microdollars, price_microdollars, title, description, call_to_action, link,
     benefit_label, benefit_detail)
VALUES
    ('minimax-coding-plan', 'coding_plan', 10, true, NULL, 'minimax', 'minimax/minimax-m3',
     50000000, 20000000, 'A coding plan covers this model',
     'Most of your variable spend of the last 7 days went to a model that a coding plan covers.',
     'Compare plans', '/subscriptions', '20, 50 or 120 USD for 30 days',
     'A fixed price for 30 days instead of paying per use'),
    ('kilo-pass-expert', 'kilo_pass', 20, true, 'user', NULL, NULL,
     100000000, 199000000, 'Kilo Pass Expert adds bonus credits',
     'You spend regularly; Kilo Pass Expert adds bonus credits to what you pay.',
     'See Kilo Pass', '/subscriptions/kilo-pass', '199 USD a month',
     'Up to 79.60 USD of bonus credits a month')
ON CONFLICT DO NOTHING;
