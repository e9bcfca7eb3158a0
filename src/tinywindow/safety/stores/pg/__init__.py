"""What PostgreSQL needs beside the one implementation over an SQL engine."""
