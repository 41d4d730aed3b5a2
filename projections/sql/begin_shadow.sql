-- The shadow's own note of what it is made of.
CREATE TABLE {schema}.rebuild (target text NOT NULL, code text NOT NULL, tables text NOT NULL, loaded boolean NOT NULL DEFAULT false)
