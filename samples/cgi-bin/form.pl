#!/usr/bin/perl
# Run:  gateways serve cgi:samples/cgi-bin/form.pl -b 127.0.0.1:9000
#
# A form as CGI scripts in Perl read one, with the module CGI (Debian's libcgi-pm-perl).
use strict;
use warnings;
use CGI;
use Digest::SHA qw(sha256_hex);

my $query = CGI->new;
print $query->header(-type => 'text/plain', -charset => 'utf-8',
    -cookie => $query->cookie(-name => 'seen', -value => 'yes'));
print $query->request_method, ' ', $query->path_info, "\n";
foreach my $name (sort $query->multi_param) {
    my $handle = $query->upload($name);
    if ($handle) {
        binmode $handle;
        my $data = do { local $/; <$handle> };
        print "$name: file ", scalar $query->param($name), ', sha256 ', sha256_hex($data), "\n";
    }
    else {
        print "$name: $_\n" foreach $query->multi_param($name);
    }
}
