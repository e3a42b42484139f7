CREATE FUNCTION exa_billing.claim_notifications(
    max_rows int,
    lease interval DEFAULT '5 minutes'
) RETURNS SETOF exa_billing.claimed_notification
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'claim_notifications_wrapper';
COMMENT ON FUNCTION exa_billing.claim_notifications(int, interval) IS
'Hands out up to max_rows (1 to 1000) notifications that are due, longest due first, each to one mailer for the length of the lease (more than nothing, at most a day); each is an attempt. Then send, and call complete_notification or fail_notification with the token; when neither comes before the lease runs out, the delivery is handed out again with another token, five times in all. A recipient who may not hear of the owner any more is skipped here. Delivers at least once: delivery_id stays the same, for the mailer to recognize. Amounts in the payload are microdollars. Errors: 22023 bad argument, 55000 where start_worker() was not called. Volatile. Example: SELECT * FROM exa_billing.claim_notifications(100);';

CREATE FUNCTION exa_billing.complete_notification(delivery_id uuid, claim_token uuid) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'complete_notification_wrapper';
COMMENT ON FUNCTION exa_billing.complete_notification(uuid, uuid) IS
'Ends a claimed notification as sent. True when this token has ended it, also when asked again; false, and nothing changed, when the token is not the one it is claimed with: its lease ran out and another claim followed, or it was failed. Errors: 22023 bad argument, P0002 no such delivery. Volatile. Example: SELECT exa_billing.complete_notification(delivery_id, claim_token) FROM exa_billing.claim_notifications(1);';

CREATE FUNCTION exa_billing.fail_notification(delivery_id uuid, claim_token uuid, error text)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'fail_notification_wrapper';
COMMENT ON FUNCTION exa_billing.fail_notification(uuid, uuid, text) IS
'Gives a claimed notification back that could not be sent, with the reason (any text or null; its first 500 characters are kept). Returns its status: pending, to be claimed again after 1, 2, 4, 8 minutes, or dead after the fifth attempt; null, and nothing changed, when the token is not the one it is claimed with. Errors: 22023 bad argument, P0002 no such delivery. Volatile. Example: SELECT exa_billing.fail_notification(delivery_id, claim_token, ''451 mailbox busy'') FROM exa_billing.claim_notifications(1);';
