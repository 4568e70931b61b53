"""The processes of the benchmark `calls`: one server, and one caller for each library."""
