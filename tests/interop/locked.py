"""A bucket that keeps every version, and lets nobody remove one for a day; and what is in it.

    locked.py ENDPOINT make       makes the bucket `locked`
    locked.py ENDPOINT report     prints a JSON object on what is in it
"""

import json
import sys

import boto3
from botocore.exceptions import ClientError

endpoint, what = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
if what == "make":
    s3.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    s3.put_object_lock_configuration(
        Bucket="locked",
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    )
    print("{}")
    sys.exit()

versions = s3.list_object_versions(Bucket="locked")["Versions"]
report = {"timestamps": 0, "others": 0, "refused": 0, "encrypted": 0}
for version in versions:
    report["timestamps" if version["Key"].endswith("/timestamp.json") else "others"] += 1
    head = s3.head_object(Bucket="locked", Key=version["Key"], VersionId=version["VersionId"])
    report["encrypted"] += head.get("ServerSideEncryption") == "AES256"
    try:
        s3.delete_object(Bucket="locked", Key=version["Key"], VersionId=version["VersionId"])
    except ClientError as error:
        report["refused"] += error.response["Error"]["Code"] == "AccessDenied"
print(json.dumps(report))
