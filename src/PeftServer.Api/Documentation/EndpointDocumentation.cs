using Microsoft.OpenApi;

namespace PeftServer.Api.Documentation;

/// <summary>An example of a request body, shown in Swagger UI.</summary>
internal sealed record RequestExample(string Name, string Json);

/// <summary>A parameter that a handler reads by itself.</summary>
internal sealed record DocumentedParameter(string Name, string Description, ParameterLocation In, JsonSchemaType Type = JsonSchemaType.String);

/// <summary>The request is a form with a file.</summary>
internal sealed record FormWithFile;

/// <summary>The body is OpenAI's and is passed on as it is: any object with a <c>model</c>.</summary>
internal sealed record ForwardedBody;

internal static class EndpointDocumentation
{
    extension(RouteHandlerBuilder endpoint)
    {
        public RouteHandlerBuilder WithExample(string name, string json) => endpoint.WithMetadata(new RequestExample(name, json));

        public RouteHandlerBuilder WithParameter(string name, string description) =>
            endpoint.WithMetadata(new DocumentedParameter(name, description, ParameterLocation.Query));

        public RouteHandlerBuilder WithHeader(string name, string description) =>
            endpoint.WithMetadata(new DocumentedParameter(name, description, ParameterLocation.Header));

        /// <summary>The model's id in the path, which the handler cuts out by itself.</summary>
        public RouteHandlerBuilder WithModelInPath() =>
            endpoint.WithMetadata(new DocumentedParameter("model", "Id of the model; '/' may be written as %2F.", ParameterLocation.Path));

        public RouteHandlerBuilder WithPaging(int usual, int most) => endpoint
            .WithMetadata(new DocumentedParameter(
                "limit", $"How many, 1 to {most}; {usual} if left out.", ParameterLocation.Query, JsonSchemaType.Integer))
            .WithParameter("after", "Id of the last object of the page before.");

        /// <summary>Errors have one shape everywhere.</summary>
        public RouteHandlerBuilder ProducesErrors(params int[] statuses)
        {
            foreach (var status in statuses)
            {
                endpoint.Produces<PeftServer.Core.Http.ErrorResponse>(status);
            }

            return endpoint;
        }
    }
}
