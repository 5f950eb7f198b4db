"""One module per VLA stage: init, pretrain, posttrain, export, and plan, which costs them beforehand."""
