"""What trains, and when: schemes, policies, selection, the plan of the backward pass. reference/ has the arithmetic."""
