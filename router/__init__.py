"""The broker: takes jobs from clients, keeps the queue, gives jobs to GPU daemons that have credit."""
