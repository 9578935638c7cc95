using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http.Features;

namespace PeftServer.Api.Security;

/// <summary>
/// The two doors of the api process: one for clients, one for administrators. A connection remembers which it came
/// through, so the check holds with free ports and behind port mappings.
/// </summary>
public static class Listeners
{
    private static readonly object Admin = new();

    extension(WebApplicationBuilder builder)
    {
        internal void AddListeners(ApiOptions options, string? apiKey)
        {
            var api = ListenAddress.Parse(options.Url, "Api:Url");
            var admin = ListenAddress.Parse(options.AdminUrl, "Api:AdminUrl");
            RefuseToBeOpen(api, options.Url, "Api:Url", apiKey);
            RefuseToBeOpen(admin, options.AdminUrl, "Api:AdminUrl", apiKey);

            builder.WebHost.ConfigureKestrel(kestrel =>
            {
                kestrel.AddServerHeader = false;
                kestrel.Limits.MaxRequestBodySize = null; // every reader has its own limit: its 413 is read before the connection ends
                api.Listen(kestrel, _ => { });
                admin.Listen(kestrel, listen => listen.Use(MarkAsAdmin));
            });
            builder.Services.AddSingleton(new HostRules(
                options.AllowedHosts, options.CorsOrigins, AnyHost: !(api.IsLoopback && admin.IsLoopback)));
        }
    }

    extension(HttpContext context)
    {
        internal bool IsAdmin => context.Features.Get<IConnectionItemsFeature>()?.Items.ContainsKey(Admin) ?? false;
    }

    extension<T>(T endpoints)
        where T : IEndpointConventionBuilder
    {
        /// <summary>Only administrators' door leads there.</summary>
        internal T OnAdminListener() => endpoints.WithMetadata(new Door(Api: false, Admin: true));

        internal T OnBothListeners() => endpoints.WithMetadata(new Door(Api: true, Admin: true));
    }

    extension(WebApplication app)
    {
        /// <summary>After routing: an endpoint of the other listener does not exist on this one.</summary>
        internal void UseListeners() => app.Use((context, next) =>
        {
            var door = context.GetEndpoint()?.Metadata.GetMetadata<Door>() ?? new Door(Api: true, Admin: false);
            if (!(context.IsAdmin ? door.Admin : door.Api))
            {
                context.SetEndpoint(null);
            }

            return next(context);
        });
    }

    /// <summary>The addresses in use, once <paramref name="app"/> has started: first the API's, then the admin listener's.</summary>
    public static (Uri Api, Uri Admin) Addresses(WebApplication app)
    {
        var addresses = app.Services.GetRequiredService<IServer>().Features.GetRequiredFeature<IServerAddressesFeature>().Addresses;
        return (new Uri(addresses.First()), new Uri(addresses.Last()));
    }

    private static ConnectionDelegate MarkAsAdmin(ConnectionDelegate next) => connection =>
    {
        connection.Items[Admin] = true;
        return next(connection);
    };

    private static void RefuseToBeOpen(ListenAddress address, string url, string setting, string? apiKey)
    {
        if (!address.IsLoopback && string.IsNullOrEmpty(apiKey))
        {
            throw new InvalidOperationException(
                $"{setting} is {url}: other machines could reach it, and no key is set, so anybody there could use this server. " +
                $"Set Auth:ApiKey (environment: Auth__ApiKey) to a long random text, or listen on http://127.0.0.1:{address.Port}.");
        }
    }

    private sealed record Door(bool Api, bool Admin);
}
