-- The sequence of round_trips_organization.sql in one PL/pgSQL function.
\set user random(1, 20000)
\set organization 1 + :user % :organizations
SELECT bench.charge('user-' || :user, 5000, 'org-' || :organization);
