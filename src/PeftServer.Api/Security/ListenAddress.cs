using System.Net;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace PeftServer.Api.Security;

/// <summary>One address to listen on, read from a URL such as <c>http://127.0.0.1:8080</c> or <c>http://*:8080</c>.</summary>
internal sealed record ListenAddress(IPAddress? Address, int Port)
{
    /// <summary>Whether only this machine reaches it. A missing address means every interface.</summary>
    public bool IsLoopback => Address is not null && IPAddress.IsLoopback(Address);

    /// <summary>Throws <see cref="InvalidOperationException"/> naming <paramref name="setting"/>.</summary>
    public static ListenAddress Parse(string url, string setting)
    {
        const string remedy = "Give an address such as http://127.0.0.1:8080, or http://*:8080 for every interface.";
        BindingAddress binding;
        try
        {
            binding = BindingAddress.Parse(url);
        }
        catch (FormatException)
        {
            throw new InvalidOperationException($"{setting} is '{url}', which is no URL. {remedy}");
        }

        if (binding.Scheme != "http" || binding.IsUnixPipe || binding.IsNamedPipe)
        {
            throw new InvalidOperationException(
                $"{setting} is '{url}'; only http is spoken here. {remedy} For TLS put a reverse proxy in front.");
        }

        return binding.Host switch
        {
            "localhost" => new(IPAddress.Loopback, binding.Port),
            "*" or "+" or "0.0.0.0" or "[::]" => new(null, binding.Port),
            var host when IPAddress.TryParse(host.Trim('[', ']'), out var address) => new(address, binding.Port),
            _ => throw new InvalidOperationException($"{setting} is '{url}', and '{binding.Host}' is no address of this machine. {remedy}"),
        };
    }

    public void Listen(KestrelServerOptions kestrel, Action<ListenOptions> configure)
    {
        if (Address is null)
        {
            kestrel.ListenAnyIP(Port, configure);
            return;
        }

        kestrel.Listen(Address, Port, configure);
    }
}
