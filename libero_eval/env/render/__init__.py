"""On software GL, a renderer that is quicker than MuJoCo's, with the same pixels."""
