"""What every carrier and every front end share. It uses no library of a broker, and no socket."""
