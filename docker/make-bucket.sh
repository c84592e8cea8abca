#!/bin/sh
# The bucket, and a user of the store that can do nothing but use it: the programs never have the store's own account.
set -eu
mc mb --ignore-existing store/osora
mc admin user add store osora "$S3_PASSWORD"
cat > /tmp/policy.json <<'POLICY'
{
  "Version": "2012-10-17",
  "Statement": [
    {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"], "Resource": ["arn:aws:s3:::osora"]},
    {
      "Effect": "Allow",
      "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
      "Resource": ["arn:aws:s3:::osora/*"]
    }
  ]
}
POLICY
mc admin policy create store bucket /tmp/policy.json
# Attaching it again is refused. The store's image has no grep.
case $(mc admin policy entities store --user osora) in
    *bucket*) ;;
    *) mc admin policy attach store bucket --user osora ;;
esac
