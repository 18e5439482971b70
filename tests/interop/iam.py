"""Users in moto's IAM with policies attached, and from then on every request is checked against them.

    iam.py ENDPOINT NAME=POLICY.json ...

Prints a JSON object: the keys of each user by name. A bucket's policy is attached to a user as if it were one: moto checks the
policies of users and roles only, so what a policy allows is checked, not to whom.
"""

import json
import sys

import boto3
import urllib.request

endpoint, *users = sys.argv[1:]
iam = boto3.client("iam", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
keys = {}
for user in users:
    name, _, path = user.partition("=")
    with open(path) as file:
        text = file.read().replace("PRIVATE-BUCKET", "vault").replace("PRIVATE-PREFIX", "prod")
    policy = json.loads(text.replace("BUCKET", "fleet").replace("PREFIX", "prod"))
    for statement in policy["Statement"]:
        statement.pop("Principal", None)
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    keys[name] = [key["AccessKeyId"], key["SecretAccessKey"]]
request = urllib.request.Request(
    f"{endpoint}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
)
urllib.request.urlopen(request).read()
print(json.dumps(keys))
