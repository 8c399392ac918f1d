"""Events and metrics of jobs and training runs, for programs that watch them."""
