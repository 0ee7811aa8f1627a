"""Clients of SQS that others wrote, for real: boto3, the AWS CLI, aws-sdk for JavaScript, Celery."""
