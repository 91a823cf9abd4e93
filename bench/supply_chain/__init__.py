"""What is inside the images: packages, their licences, bills of materials, known vulnerabilities."""
