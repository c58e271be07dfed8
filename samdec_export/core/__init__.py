"""What everything else stands on: shapes, types, options, records, results, files, errors."""
