CREATE FUNCTION exa_billing.dismiss_cost_suggestion(suggestion_id uuid, actor_user_id text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'dismiss_cost_suggestion_wrapper';
COMMENT ON FUNCTION exa_billing.dismiss_cost_suggestion(uuid, text) IS
'Puts a suggestion away for its owner; true when this call did it, false when it was no longer open. It comes back only when the amount observed in 7 days, in microdollars, has grown by half, the price has changed or another rule makes it. actor_user_id is who acts for the owner. Leaves an event suggestion_dismissed. Errors: 22023 bad argument, 42501 not this actor, P0002 no such suggestion of anybody the actor answers for. Volatile. Example: SELECT exa_billing.dismiss_cost_suggestion(suggestion_id, ''user-1'') FROM exa_billing.cost_suggestions WHERE owner_kind = ''user'' AND owner_id = ''user-1'' AND status = ''open'';';
