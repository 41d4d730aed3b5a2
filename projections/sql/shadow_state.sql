-- What a shadow is made of: target, code and tables it was begun with, and whether it was loaded and has its indexes.
SELECT target, code, tables, loaded FROM {schema}.rebuild
