"""A mixture of scikit-learn classifiers as an estimator."""
